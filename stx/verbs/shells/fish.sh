# Completion of stx in fish:  stx completion fish | source
# `stx complete` gets the line up to the cursor and answers in lines: VALUE<tab>HELP, or <tab>files, <tab>folders.
function __stx_complete
    for row in (command stx complete -- (commandline -cp | string collect) 2>/dev/null)
        switch $row
            case \tfiles
                __fish_complete_path (commandline -ct)
            case \tfolders
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $row
        end
    end
end
complete -c stx -f -a '(__stx_complete)'
