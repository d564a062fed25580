-- greatest: the greatest id that an entry can have. Nothing is behind it, and Redis refuses to look there.
local GREATEST = '18446744073709551615-18446744073709551615'
