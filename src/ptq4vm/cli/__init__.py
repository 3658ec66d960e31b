"""The command line: one command a file on the frame of :mod:`ptq4vm.cli.frame`, and the only room that knows Hydra.
What reads arguments, calls :mod:`ptq4vm.api` or the room that does the work, and tells the result in the terminal may
enter. Nothing may be computed here that a user of the library could not have as well."""
