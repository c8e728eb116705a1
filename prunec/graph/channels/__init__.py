"""Channel identity: atoms, carried through the graph by one class per operator family."""
