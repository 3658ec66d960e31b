"""What every operation of an exported file costs in its engine, and why those in float are: one module for each engine
reads that engine's own profile and the graph that it really runs. An engine brings its own by
:meth:`ptq4vm.engines.step.StepEngine.costs`; what its operations and reasons are made of is shared here."""
