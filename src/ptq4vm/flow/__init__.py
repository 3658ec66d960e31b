"""Optical flow: estimators, one file each, what is occluded, and the cache. An estimator that is registered in
:data:`ptq4vm.flow.base.FLOWS` may enter, with one file in ``conf/flow`` that names it. No training and no matting
network may: flow is computed from pixels, or known by the clip."""
