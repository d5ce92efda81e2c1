"""What learns: models, augmentation, the training of folds, and who runs them."""
