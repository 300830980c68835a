"""Networks: images and K in, Predictions out. One model, one file; the other files are its parts."""
