"""torchgfn programs that run in a minute."""
