"""Trainings from texts alone: masked words, repeated sentences, a teacher's students, words that mean the same."""
