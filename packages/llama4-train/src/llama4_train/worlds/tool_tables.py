"""Tools: their schemas, requests for them, what they return, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama4_train.worlds.streams import Stream

CITIES = (
    "Paris", "Rome", "Cairo", "Delhi", "Lima", "Oslo", "Tokyo", "Madrid", "Berlin", "Manila",
    "Accra", "Hanoi", "Bangkok", "Jakarta", "Lisbon", "London",
)  # fmt: skip
PEOPLE = ("Anna", "Ben", "Carla", "David", "Elena", "Farid", "Grace", "Hugo")
ROOMS = ("kitchen", "bedroom", "bathroom", "office", "hall", "garage")
NOTES = ("I am late", "Call me back", "Happy birthday", "Dinner is ready", "See you tomorrow")
SKIES = ("sunny", "cloudy", "rainy", "windy")
_CONSONANTS = "bcdfghjklmnprstvz"


@dataclass(frozen=True)
class Names:
    """What requests speak of: places, people, rooms and messages to choose from."""

    cities: Sequence[str] = CITIES
    people: Sequence[str] = PEOPLE
    rooms: Sequence[str] = ROOMS
    notes: Sequence[str] = NOTES


KNOWN = Names()


@dataclass(frozen=True)
class Request:
    """One use of a tool.

    Attributes:
        ask: of the user.
        arguments: that the right call has.
        result: that the tool returns.
        final: what the assistant says then.
    """

    ask: str
    arguments: Mapping[str, Any]
    result: Mapping[str, Any]
    final: str


@dataclass(frozen=True, eq=False)
class Tool:
    """A tool.

    Attributes:
        schema: name, description and parameters, as the chat format takes them.
        request: draws a request for it that speaks of the names.
    """

    schema: Mapping[str, Any]
    request: Callable[[Stream, Names], Request]

    @property
    def name(self) -> str:
        """Of the tool."""
        return str(self.schema["name"])

    @property
    def signature(self) -> str:
        """``get_weather(city)``: for a pack, where there is no room for a schema."""
        return f"{self.name}({', '.join(self.schema['parameters']['properties'])})"


def made_up(stream: Stream) -> Names:
    """One name of each kind, of one or two words that are made up or of any other kind."""
    return Names(
        (_some_words(stream, 2),),
        (_some_words(stream, 2),),
        (_some_words(stream, 2).lower(),),
        (_some_words(stream, 4).capitalize(),),
    )


def _some_words(stream: Stream, most: int) -> str:
    return " ".join(_word(stream) for _ in range(stream.between(1, most)))


def _word(stream: Stream) -> str:
    if stream.flip():
        return stream.pick((*CITIES, *PEOPLE, *ROOMS)).capitalize()
    syllables = (
        stream.pick(_CONSONANTS) + stream.pick("aeiou") + stream.pick(("", "", "n", "r", "s", "l"))
        for _ in range(stream.between(1, 3))
    )
    return "".join(syllables).capitalize()


def _schema(name: str, description: str, **parameters: str) -> Mapping[str, Any]:
    return {
        "name": name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": {key: {"type": kind} for key, kind in parameters.items()},
            "required": list(parameters),
        },
    }


def _weather(stream: Stream, names: Names) -> Request:
    city, sky, degrees = stream.pick(names.cities), stream.pick(SKIES), stream.between(1, 35)
    ask = stream.pick(("What is the weather in {}?", "How is the weather in {}?"))
    result = {"sky": sky, "degrees": degrees}
    return Request(
        ask.format(city), {"city": city}, result, f"It is {sky} in {city}, {degrees} degrees."
    )


def _time(stream: Stream, names: Names) -> Request:
    city = stream.pick(names.cities)
    clock = f"{stream.between(0, 23):02}:{stream.between(0, 59):02}"
    ask = stream.pick(("What time is it in {}?", "Tell me the time in {}."))
    return Request(ask.format(city), {"city": city}, {"time": clock}, f"It is {clock} in {city}.")


def _timer(stream: Stream, _names: Names) -> Request:
    minutes = stream.between(2, 90)
    ask = stream.pick(("Set a timer for {} minutes.", "Wake me in {} minutes."))
    final = f"The timer is set to {minutes} minutes."
    return Request(ask.format(minutes), {"minutes": minutes}, {"done": True}, final)


def _light(stream: Stream, names: Names) -> Request:
    room, on = stream.pick(names.rooms), stream.flip()
    word = "on" if on else "off"
    ask = stream.pick(("Turn {1} the light in the {0}.", "Switch the light in the {0} {1}."))
    final = f"The light in the {room} is {word}."
    return Request(ask.format(room, word), {"room": room, "on": on}, {"done": True}, final)


def _message(stream: Stream, names: Names) -> Request:
    person, note = stream.pick(names.people), stream.pick(names.notes)
    ask = stream.pick(('Write "{1}" to {0}.', 'Send {0} the message "{1}".'))
    arguments = {"to": person, "text": note}
    return Request(
        ask.format(person, note), arguments, {"done": True}, f"{person} has your message."
    )


def _add(stream: Stream, _names: Names) -> Request:
    one, other = stream.between(10, 999), stream.between(10, 999)
    ask = stream.pick(("Add {} and {}.", "What is the sum of {} and {}?"))
    arguments = {"a": one, "b": other}
    final = f"The sum of {one} and {other} is {one + other}."
    return Request(ask.format(one, other), arguments, {"sum": one + other}, final)


TOOLS = (
    Tool(_schema("get_weather", "The weather in a city now.", city="string"), _weather),
    Tool(_schema("get_time", "The time in a city now.", city="string"), _time),
    Tool(_schema("set_timer", "Rings after some minutes.", minutes="integer"), _timer),
    Tool(_schema("set_light", "Turns a light on or off.", room="string", on="boolean"), _light),
    Tool(
        _schema("send_message", "Sends a text to a person.", to="string", text="string"), _message
    ),
    Tool(_schema("add", "The sum of two numbers.", a="integer", b="integer"), _add),
)
