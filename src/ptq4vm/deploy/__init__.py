"""Networks that leave: exported files, engines that run them, and the matting of videos with them."""
