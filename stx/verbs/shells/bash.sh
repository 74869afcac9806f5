# Completion of stx in bash 4.4 and later:  eval "$(stx completion bash)"
# `stx complete` gets the line up to the cursor and answers in lines: VALUE<tab>HELP, or <tab>files, <tab>folders.
_stx() {
    local line=${COMP_LINE:0:COMP_POINT} row value word head breaks
    COMPREPLY=()
    while IFS= read -r row; do
        value=${row%%$'\t'*}
        case $row in
            $'\tfiles') compopt -o default ;;
            $'\tfolders') compopt -o dirnames ;;
            *)
                [[ $value == *[[:space:]\'\"\\\(\)\[\]\*\?\$\&\;\<\>\|\`]* ]] && printf -v value %q "$value"
                [[ -n $value ]] && COMPREPLY+=("$value")
                ;;
        esac
    done < <("$1" complete -- "$line" 2>/dev/null)
    # bash breaks words at : and =, and replaces only what comes after the last of them
    word=${line##*[[:space:]]}
    breaks=${COMP_WORDBREAKS//[^:=]/}
    if [[ -n $breaks && $word != [\'\"]* ]]; then
        head=${word%"${word##*[$breaks]}"}
        COMPREPLY=("${COMPREPLY[@]#"$head"}")
    fi
}
complete -F _stx stx
