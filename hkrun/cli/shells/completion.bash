# Completion of hkrun for bash 4.4 or newer; `hkrun completion --help` says how to install it.
# hkrun is given the line up to the cursor and prints a kind, a tab and the text that bash is to insert.
_hkrun() {
    local kind value
    local -a found
    COMPREPLY=()
    while IFS=$'\t' read -r kind value; do
        found=()
        case $kind in
            word) COMPREPLY+=("$value") ;;
            part) COMPREPLY+=("$value"); compopt -o nospace ;;
            dir) mapfile -t found < <(compgen -d -- "$value") ;;
            file) mapfile -t found < <(compgen -f -- "$value") ;;
            toml) mapfile -t found < <(compgen -f -X '!*.toml' -- "$value"; compgen -d -- "$value") ;;
        esac
        if ((${#found[@]})); then
            compopt -o filenames
            COMPREPLY+=("${found[@]}")
        fi
    done < <(_HKRUN_COMPLETE=bash COMP_WORDBREAKS=$COMP_WORDBREAKS \
        "${1/#\~/$HOME}" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
}
complete -o nosort -F _hkrun hkrun
