#compdef hkrun
# Completion of hkrun for zsh; `hkrun completion --help` says how to install it.
# hkrun is given the words up to the cursor and prints a kind, a value and what it means, between tabs.
_hkrun() {
    local kind value meaning current
    local -a whole parts files
    [[ -n $QIPREFIX$PREFIX ]] && current=${${(z)LBUFFER}[-1]}
    while IFS=$'\t' read -r kind value meaning; do
        case $kind in
            word) whole+=("${value//:/\\:}${meaning:+:$meaning}") ;;
            part) parts+=("${value//:/\\:}${meaning:+:$meaning}") ;;
            dir) files=(-/) ;;
            file) files=(-g '*(-.)') ;;
            toml) files=(-g '*.toml(-.)') ;;
        esac
    done < <(_HKRUN_COMPLETE=zsh "${${(Q)words[1]}/#\~/$HOME}" "${(@Q)words[2,CURRENT-1]}" "$current" 2>/dev/null)
    local found=1
    ((${#whole})) && _describe -V hkrun whole && found=0
    ((${#parts})) && _describe -V hkrun parts -S '' && found=0
    if ((${#files})); then
        [[ $current == --*=* ]] && compset -P '--*='
        _files "${files[@]}" && found=0
    fi
    return found
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _hkrun "$@"
else
    compdef _hkrun hkrun
fi
