"""Files that are whole or absent: tables, arrays, manifests, atomic folders."""
