#compdef stx
# Completion of stx in zsh, after compinit:  eval "$(stx completion zsh)"
# `stx complete` gets the line up to the cursor and answers in lines: VALUE<tab>HELP, or <tab>files, <tab>folders.
_stx() {
    local row value
    local -a values shown
    for row in "${(@f)$("${words[1]}" complete -- "${(j: :)${(@)words[1,CURRENT]}}" 2>/dev/null)}"; do
        value=${row%%$'\t'*}
        case $row in
            $'\tfiles') _files ;;
            $'\tfolders') _files -/ ;;
            ?*)
                values+=("$value")
                shown+=("${row/$'\t'/  -- }")
                ;;
        esac
    done
    (( ${#values} )) && compadd -l -d shown -a values
}
compdef _stx stx
