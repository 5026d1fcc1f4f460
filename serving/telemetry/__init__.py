"""What operators see of the facade: figures, traces, logs. Each part is off unless it is asked for."""
