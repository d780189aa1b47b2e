"""A run as torchgfn estimators, and the backward approaches in anyone's torchgfn program."""
