"""What the API's requests and answers look like; the schema of a recipe is pops.recipe's own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StrictStr

from pops.server.projects import Project
from pops.server.store import Job, StoredImage

PhotoId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", examples=["1f3a0c5e7b9d2f4681a3c5e7092b4d6f"])]
JobId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", examples=["9a3a0c5e7b9d2f4681a3c5e7092b4d6f"])]
ImageId = Annotated[str, Field(pattern="^[0-9a-f]{32}-[0-9]{1,5}$", examples=["9a3a0c5e7b9d2f4681a3c5e7092b4d6f-0"])]
Size = Annotated[
    Literal[64, 128, 256, 512, 1024], BeforeValidator(lambda text: int(text) if str(text).isdecimal() else text)
]
Status = Literal["queued", "running", "done", "failed", "cancelled"]


class Problem(BaseModel):
    """What is wrong, and what to do."""

    code: str
    message: str
    span: tuple[int, int] | None = None  # the characters of an expression that it is about
    suggestion: str | None = None  # what may have been meant
    revision: int | None = None  # the newest, of a project that was changed meanwhile


class Refusal(BaseModel):
    """The body of every answer that is no success."""

    error: Problem


class PhotoAnswer(BaseModel):
    """An uploaded photo. Recipes name it photo:ID."""

    id: PhotoId
    width: int
    height: int
    name: str = ""  # the file's, as it was sent last


class ImageAnswer(BaseModel):
    """A finished image, at GET /images/ID."""

    id: ImageId
    number: int
    width: int
    height: int

    @classmethod
    def of(cls, image: StoredImage) -> ImageAnswer:
        """Returns an image as it is told."""
        return cls(id=image.id, number=image.number, width=image.width, height=image.height)


class Accepted(BaseModel):
    """A job that is queued; reused: it was there already."""

    id: JobId
    reused: bool = False


class Warned(BaseModel):
    """Something that a job's images may suffer from: which operand (photo:ID, or words), and why."""

    code: str
    operand: str
    message: str


class JobAnswer(BaseModel):
    """One job. number: of jobs in the order in which they came, for `after`; place: in the history, for `before`, none
    of a preview; names: of its photos' files, by photo:ID. Times in seconds since 1970."""

    id: JobId
    number: int
    status: Status
    model: str
    recipe: dict[str, JsonValue]
    images: list[ImageAnswer]
    error: Problem | None
    notes: list[str]
    warnings: list[Warned]
    created: float
    started: float | None
    ended: float | None
    quick: bool
    favourite: bool
    place: int | None
    names: dict[str, str]

    @classmethod
    def of(cls, job: Job) -> JobAnswer:
        """Returns a job as it is told."""
        return cls(
            id=job.id,
            number=job.seq,
            status=job.status,  # type: ignore[arg-type]  # one of the five
            model=job.model,
            recipe=dict(job.recipe),
            images=[ImageAnswer.of(image) for image in job.images],
            error=None if job.error is None else Problem(**job.error),
            notes=list(job.notes),
            warnings=[Warned(**warning) for warning in job.warnings],
            quick=job.quick,
            favourite=job.favourite,
            place=job.place,
            names={f"photo:{photo}": name for photo, name in job.names.items()},
            created=job.created,
            started=job.started,
            ended=job.ended,
        )


class JobList(BaseModel):
    """Jobs in the order in which they came; of the history, the newest first."""

    jobs: list[JobAnswer]


class Favourite(BaseModel):
    """Whether a job is one of a person's favourites, which are kept."""

    model_config = ConfigDict(extra="forbid")

    favourite: Annotated[bool, Field(strict=True)]


class Parse(BaseModel):
    """A text to parse, or a tree to write as text: one of the two."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"oneOf": [{"required": ["text"]}, {"required": ["tree"]}]}
    )

    text: Annotated[StrictStr, Field(max_length=100_000)] = ""
    tree: JsonValue = None
    model: StrictStr | None = None  # whose operators are meant; the server's first, unless given


class Parsed(BaseModel):
    """An expression in both forms, the text as pops writes it."""

    text: str
    tree: JsonValue
    photos: list[str]


class Export(BaseModel):
    """A recipe to write as one would write it oneself. names: of its photos' files, by photo:ID."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    recipe: dict[str, JsonValue]
    kind: Annotated[Literal["python", "command"], Field(alias="as")]
    names: dict[str, Annotated[StrictStr, Field(max_length=1000)]] = {}


class Snippet(BaseModel):
    """Lines of Python, or a command; files: the names in it, by photo:ID."""

    text: str
    files: dict[str, str]


class Cell(BaseModel):
    """One image of a sheet, and what stands below it."""

    model_config = ConfigDict(extra="forbid")

    image: ImageId
    label: Annotated[StrictStr, Field(max_length=200)]


class Sheet(BaseModel):
    """Images to draw as one, row by row, and a title below them."""

    model_config = ConfigDict(extra="forbid")

    cells: Annotated[list[Cell], Field(min_length=1, max_length=128)]
    title: Annotated[StrictStr, Field(max_length=2000)] = ""


class Example(BaseModel):
    """A worked example: a recipe to queue, and the ids of its photos. picture: where the one that ships with pops is
    what this server would make, its version: GET /gallery/NAME?v=VERSION."""

    name: str
    title: str
    recipe: dict[str, JsonValue]
    photos: list[PhotoId]
    picture: str | None


class Gallery(BaseModel):
    """Worked examples."""

    examples: list[Example]


class Opened(BaseModel):
    """A recipe that was in a file, its photos by the names that the server has; missing: those that it has not."""

    recipe: dict[str, JsonValue]
    text: str
    tree: JsonValue
    missing: list[str]
    notes: list[str]


class NewProject(BaseModel):
    """A project to store. document: the studio's own; what its lists `photos` and `pins` (ids) name is kept."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[StrictStr, Field(min_length=1, max_length=200)]
    document: dict[str, JsonValue]


class ChangedProject(NewProject):
    """A project to store in place of the one that was loaded at this revision."""

    revision: Annotated[int, Field(ge=0, le=2**62, strict=True)]


class Revision(BaseModel):
    """A project as it is stored now."""

    id: PhotoId
    revision: int


class ProjectRow(BaseModel):
    """A project in a list. changed: in seconds since 1970; thumbnail: an image's id."""

    id: PhotoId
    name: str
    revision: int
    changed: float
    thumbnail: str | None


class ProjectList(BaseModel):
    """All projects, those that changed last first."""

    projects: list[ProjectRow]


class ProjectAnswer(ProjectRow):
    """A project with its document."""

    document: dict[str, JsonValue]


def row_of(project: Project) -> dict[str, Any]:
    """Returns what is told of a project in a list."""
    return {name: getattr(project, name) for name in ProjectRow.model_fields}


class Token(BaseModel):
    """What a page gives for its cookie."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[StrictStr, Field(max_length=1000)]


class ModelAnswer(BaseModel):
    """A model that is loaded, and what with. upscale: how many times its own upscaler enlarges; 1: it has none."""

    name: str
    version: str
    default: bool
    loading: dict[str, JsonValue]
    upscale: int


class NeededModel(BaseModel):
    """A model that has a name. needs: memory, disk and device; get: how it comes here; here: whether it is."""

    name: str
    summary: str
    source: str
    needs: str
    get: str
    here: bool


class Models(BaseModel):
    """The models of the server, and of every model with a name what it needs."""

    models: list[ModelAnswer]
    needs: list[NeededModel]


class Operators(BaseModel):
    """The operators of a model, by name."""

    model: str
    operators: dict[str, dict[str, JsonValue]]


class Renderers(BaseModel):
    """The installed renderers, and what each can do with a model."""

    model: str
    renderers: list[dict[str, JsonValue]]


class Sources(BaseModel):
    """What recipes may name beside photos."""

    examples: list[str]
    libraries: list[str]


class Health(BaseModel):
    """Whether the workers make images; seconds that a tiny one took."""

    ok: bool
    version: str
    workers: list[dict[str, JsonValue]]
    waiting: int


class Search(BaseModel):
    """An expression, and a library in which to look for what is nearest to it; how it is made is as in a recipe."""

    model_config = ConfigDict(extra="forbid")

    expression: Annotated[StrictStr, Field(max_length=100_000)]
    library: Annotated[StrictStr, Field(max_length=200)]
    seed: Annotated[int, Field(ge=0, le=2**32, strict=True)] = 0
    count: Annotated[int, Field(ge=1, le=50, strict=True)] = 10
    making: dict[str, JsonValue] = Field(default_factory=dict)
    loading: dict[str, JsonValue] = Field(default_factory=dict)


class Match(BaseModel):
    """A photo of a library, which from now on is a photo of the server."""

    id: PhotoId
    name: str
    score: float


class Matches(BaseModel):
    """The nearest photos, the nearest first."""

    matches: list[Match]


def problem(code: str, message: str, **more: Any) -> dict[str, Any]:
    """Returns the body of a refusal."""
    return {"error": {"code": code, "message": message, **{k: v for k, v in more.items() if v is not None}}}
