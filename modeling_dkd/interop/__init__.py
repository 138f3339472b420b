"""DKD in the runtimes and the harnesses of others."""
