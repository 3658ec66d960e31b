"""Export targets, one folder each: its graph passes, and what writes its files. A folder registers its class when it is
imported and may use the graph passes of :mod:`ptq4vm.exporting.graph`. It may not import another target's folder."""
