-- The example participants keep their tables apart from those of sagad.
CREATE DATABASE examples;
