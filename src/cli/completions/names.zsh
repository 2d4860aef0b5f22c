# Completes the names of the runners in config.toml.
_runner_agent_names() {
    local word previous
    local -a config names
    for word in ${(z)LBUFFER}; do
        [[ $previous != (-c|--config) ]] || config=(--config ${${(Q)word}/#\~/$HOME})
        previous=$word
    done
    names=(${(f)"$(runner-agent names $config 2>/dev/null)"})
    compadd -a names
}
