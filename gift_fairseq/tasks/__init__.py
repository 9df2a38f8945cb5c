"""Tasks of the plugin; fairseq imports them through --user-dir."""
