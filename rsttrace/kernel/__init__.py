"""The live source: BPF programs in the kernel, and the resets they see."""
