"""SQL that goes to the database's driver as it is, within a transaction of SQLAlchemy's.

SQLAlchemy takes several times as long for a statement as SQLite does, and an order waits for the dozen of its step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa


class Insertion:
    """Adds rows, given as tuples in the order of ``columns``, to a table.

    Args:
        table: where they go.
        columns: names of its columns; all of them by default, in the order of the table.
        replaces: a row takes the place of one with the same primary key; without, there must be none.
    """

    def __init__(self, table: sa.Table, *columns: str, replaces: bool = False) -> None:
        self._table = table
        self._columns = [table.columns[name] for name in columns] or list(table.columns)
        self._replaces = replaces
        self._statements: dict[str, str] = {}

    def __call__(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows.

        Raises:
            sqlalchemy.exc.DBAPIError: the database refused.
        """
        if not rows:
            return
        dialect = connection.dialect
        statement = self._statements.get(dialect.name)
        if statement is None:
            statement = self._statements[dialect.name] = self._text(dialect)
        _execute(connection, statement, rows)

    def _text(self, dialect: sa.Dialect) -> str:
        def listed(columns: Sequence[sa.Column[Any]]) -> str:
            return ", ".join(preparer.format_column(column) for column in columns)

        preparer = dialect.identifier_preparer
        marks = ", ".join([_mark(dialect)] * len(self._columns))
        text = f"INSERT INTO {preparer.format_table(self._table)} ({listed(self._columns)}) VALUES ({marks})"
        if self._replaces:
            # The same on SQLite (https://www.sqlite.org/lang_upsert.html) and PostgreSQL.
            names = [preparer.format_column(column) for column in self._columns if not column.primary_key]
            text += f" ON CONFLICT ({listed(list(self._table.primary_key))}) DO UPDATE SET "
            text += ", ".join(f"{name} = excluded.{name}" for name in names)
        return text


def change_plain(connection: sa.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Execute a statement that gives no rows, once for every tuple of values.

    Args:
        connection: within a transaction, which is begun where there is none, as SQLAlchemy does.
        statement: with ``?`` in place of every value, and nowhere else.
        rows: values in their order.

    Raises:
        sqlalchemy.exc.DBAPIError: the database refused.
    """
    _execute(connection, statement.replace("?", _mark(connection.dialect)), rows)


def select_plain(connection: sa.Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a query, as the driver gives them.

    Args:
        connection: see ``change_plain``, as the next two.
        statement: see there.
        values: see there.

    Raises:
        sqlalchemy.exc.DBAPIError: the database refused.
    """
    statement = statement.replace("?", _mark(connection.dialect))
    with _driver(connection, statement, values) as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _execute(connection: sa.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    with _driver(connection, statement, rows) as cursor:
        if len(rows) == 1:
            cursor.execute(statement, rows[0])
        else:
            cursor.executemany(statement, rows)


def _mark(dialect: sa.Dialect) -> str:
    return "?" if dialect.paramstyle == "qmark" else "%s"


@contextmanager
def _driver(connection: sa.Connection, statement: str, values: Sequence[Any]) -> Iterator[Any]:
    """A cursor of the driver's, whose errors come as SQLAlchemy's."""
    if not connection.in_transaction():
        connection.begin()
    cursor = connection.connection.cursor()
    try:
        yield cursor
    except Exception as problem:
        driver_error = connection.dialect.loaded_dbapi.Error
        if not isinstance(problem, driver_error):
            raise
        raise sa.exc.DBAPIError.instance(
            statement, values, problem, driver_error, dialect=connection.dialect
        ) from problem
    finally:
        cursor.close()
