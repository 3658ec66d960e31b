"""The run folder: its layout, its state and what it measured, written and read again. The only place that knows the
names of its files. No network is built here."""
