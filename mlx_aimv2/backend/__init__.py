"""The machine: BLAS, device, dtype, threads and forked processes."""
