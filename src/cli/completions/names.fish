# Prints the names of the runners in config.toml.
function __runner_agent_names
    set -l config
    set -l previous
    for word in (commandline -opc)
        if contains -- "$previous" -c --config
            set config --config (string replace -r '^~' $HOME -- $word)
        end
        set previous $word
    end
    runner-agent names $config 2>/dev/null
end
