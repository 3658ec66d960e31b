"""The data sets, one file each. A class with ``clips()`` that is registered in :data:`ptq4vm.data.base.DATASETS` may
enter, with one file in ``conf/data`` that names it. Nobody else may import one by its class: they are asked by protocol
or built from the configuration."""
