"""Loading, preparing and asking local models."""
