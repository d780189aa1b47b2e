"""A run as torchgfn estimators."""
