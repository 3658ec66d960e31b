"""The DataModule: samples, batches, flows and evaluation chunks for Lightning. It decides what is seen, in which
order. Clips come from data sets, and are decoded in workers."""
