"""Files that are whole or absent: tables, arrays, checkpoints, records, manifests, atomic folders."""
