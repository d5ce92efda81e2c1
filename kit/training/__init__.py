"""Models, augmentation, the training of folds, and the executors that run them."""
