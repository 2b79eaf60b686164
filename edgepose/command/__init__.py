"""What stands behind each verb of the `edgepose` command: its options, its help, and how its answer is printed."""
