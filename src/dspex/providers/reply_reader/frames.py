"""How questions and answers are parted: each begins with its length, a question also with its seconds."""

import struct

QUESTION = struct.Struct(">Id")
ANSWER = struct.Struct(">I")
