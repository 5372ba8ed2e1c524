"""Safe loading, published namings and ours, exact accounting."""
