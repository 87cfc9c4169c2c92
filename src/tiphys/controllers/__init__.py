"""The control loops: observe, plan (pure, with a reason), apply."""
