"""What goes out: the kernel, its rehearsal, the push, and the ledger."""
