"""The one fill model: how orders meet bars, in replay, in paper trading and in the sandbox alike."""

from bot.execution.fills.book import BookSide as BookSide
from bot.execution.fills.book import Progress as Progress
from bot.execution.fills.book import WorkingOrder as WorkingOrder
from bot.execution.fills.checks import refusal as refusal
from bot.execution.fills.model import FillModel as FillModel
from bot.execution.fills.rules import PLAIN as PLAIN
from bot.execution.fills.rules import BandAction as BandAction
from bot.execution.fills.rules import Costs as Costs
from bot.execution.fills.rules import FillRules as FillRules
from bot.execution.fills.rules import MarginMode as MarginMode
