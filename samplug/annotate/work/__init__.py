"""From a shard to its records, whoever annotates it: this process, one of several, or an actor on a cluster."""
