"""What every drawing function returns."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from kvbudget.allocator.files import FilePath, write_whole
from kvbudget.allocator.picture_style import file_bytes, kind_of


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A drawing, with words for those who cannot see it.

    Printing it gives the words. A notebook shows the drawing.

    Args:
        figure: A figure of Matplotlib that belongs to no window; it may be changed.
        title: A few words on what it shows.
        description: What is to be seen in it, in words: the alternative text of a page.
    """

    figure: Figure
    title: str
    description: str

    def save(self, path: FilePath) -> None:
        """Write the drawing with its words; the same drawing always gives the same bytes.

        Args:
            path: Where to; ends in ``.png`` or ``.svg``.

        Raises:
            FileNotFoundError: If the folder does not exist.
            IsADirectoryError: If the path is a folder.
            ValueError: If the path ends otherwise.
        """
        write_whole(path, file_bytes(self.figure, kind_of(path), self.title, self.description))

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return file_bytes(self.figure, "png", self.title, self.description)

    def __str__(self) -> str:
        """The words."""
        return self.description
