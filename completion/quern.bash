# SPDX-License-Identifier: Apache-2.0
# bash completion for quern: commands and options are read from `quern --help`, so they are never out of date.

_quern_commands() {
    "$1" --help 2>/dev/null | sed -n '/^commands:$/,/^$/s/^  \([a-z]\{1,\}\) .*/\1/p'
}

# Lines "SPELLINGS ARGUMENT" of a command's options: "-m --model DIR", "--json".
_quern_options() {
    "$1" help "$2" 2>/dev/null | sed -n 's/^  \(-.*\)$/\1/p' | sed 's/  .*//; s/,//g'
}

_quern() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]}
    local command=${COMP_WORDS[1]} line argument
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "$(_quern_commands "$program") help --help --version" -- "$cur"))
        return
    fi
    if [ "$command" = help ]; then
        COMPREPLY=($(compgen -W "$(_quern_commands "$program")" -- "$cur"))
        return
    fi
    # a value of the option before
    while read -r line; do
        case " $line " in *" $prev "*) argument=${line##* } ;; esac
    done < <(_quern_options "$program" "$command")
    case $argument in
    -* | '') ;;
    *'|'*)
        COMPREPLY=($(compgen -W "${argument//|/ }" -- "$cur"))
        return
        ;;
    DIR)
        COMPREPLY=($(compgen -d -- "$cur"))
        return
        ;;
    FILE)
        COMPREPLY=($(compgen -f -- "$cur"))
        return
        ;;
    SHAPE)
        COMPREPLY=($(compgen -W "0.6B 1.7B 4B 8B 14B 32B" -- "$cur"))
        return
        ;;
    *) return ;;
    esac
    case $cur in
    -*) COMPREPLY=($(compgen -W "$(_quern_options "$program" "$command" | tr ' ' '\n' | grep '^-')" -- "$cur")) ;;
    *)
        case $command in
        verify) COMPREPLY=($(compgen -f -- "$cur")) ;;
        quantize) COMPREPLY=($(compgen -d -- "$cur")) ;;
        synth)
            if [ "$COMP_CWORD" -eq 2 ]; then
                COMPREPLY=($(compgen -W "0.6B 1.7B 4B 8B 14B 32B" -- "$cur"))
            else
                COMPREPLY=($(compgen -d -- "$cur"))
            fi
            ;;
        esac
        ;;
    esac
}

complete -o filenames -F _quern quern
