"""What every part agrees on: pure values and rules, without I/O, clock or event loop."""
