"""Drawing with generators: pictures before and after an edit, and the panel that judges them."""
