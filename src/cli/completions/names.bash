# Completes the names of the runners in config.toml. They are compared as text and quoted, and never evaluated.
_runner_agent_names() {
    local name word previous='' config=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $previous in -c | --config) config=(--config "${word/#\~/$HOME}") ;; esac
        previous=$word
    done
    COMPREPLY=()
    while IFS= read -r name; do
        printf -v name %q "$name"
        [[ $name != "$1"* ]] || COMPREPLY+=("$name")
    done < <(runner-agent names ${config[@]+"${config[@]}"} 2>/dev/null)
}

# Completes a word of a command that selects runners: an option after a hyphen or without names, else a name.
_runner_agent_words() {
    COMPREPLY=()
    [[ $2 == -* ]] || _runner_agent_names "$2"
    ((${#COMPREPLY[@]})) || COMPREPLY=($(compgen -W "$1" -- "$2"))
}
