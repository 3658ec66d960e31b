"""Videos and images, in and out: frames with their clocks, colours, rotation and sound, as arrays. Data sets and
matting read and write through it alone. No network, no metric and no configuration may enter."""
