"""The DataModule: samples, batches, flows and evaluation chunks for Lightning. What decides which
samples are seen, and in which order, may enter. No data set may be known by its class: clips come by protocol, and are
decoded in workers."""
