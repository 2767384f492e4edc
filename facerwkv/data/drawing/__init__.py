"""Drawn people in drawn places: what the toy data set is made of. `scene.draw_scene` is the door."""
