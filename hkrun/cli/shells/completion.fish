# Completion of hkrun for fish; `hkrun completion --help` says how to install it.
# hkrun is given the words up to the cursor and prints a kind, a value and what it means, between tabs.
function __hkrun_complete
    set -l words (commandline --tokens-expanded --cut-at-cursor --current-process 2>/dev/null; or commandline -opc)
    set -l current (commandline -ct)
    set -l option (string match --regex -- '^--[^=]*=' $current)
    set -l command $words[1]
    set -e words[1]
    for line in (env _HKRUN_COMPLETE=fish $command $words "$current" 2>/dev/null)
        set -l found (string split -m 2 \t -- $line)
        switch $found[1]
            case word part
                printf '%s\t%s\n' $found[2] $found[3]
            case dir
                printf '%s\n' "$option"(__fish_complete_directories $found[2] '')
            case file
                printf '%s\n' "$option"(__fish_complete_path $found[2])
            case toml
                printf '%s\n' "$option"(__fish_complete_suffix $found[2] .toml)
        end
    end
end
complete --command hkrun --no-files --keep-order --arguments '(__hkrun_complete)'
