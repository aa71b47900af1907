"""Class maps by likeness to prototypes: the head, what is made of its maps, the mask refiner and the learner."""
