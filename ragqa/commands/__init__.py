"""The sub-commands of `ragqa`: each module has `add_arguments`, `run`, and an example."""
